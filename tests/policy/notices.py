"""What the tests of notices are made of: who sends them, and claims of one that is in order."""

from fastgate.model import Notifier, Refusal

NOW = 1_700_000_000.0
ISSUER = "https://idp.test/realms/x"
NOTIFIER = Notifier(ISSUER, frozenset({"gate", "app"}), subject_issuers=frozenset({ISSUER}))
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"


def claims(**changes):
    """Claims for us and for now; `...` leaves one out."""
    members = {"iss": ISSUER, "aud": "gate", "iat": int(NOW), "jti": "j1", **changes}
    return {name: value for name, value in members.items() if value is not ...}


def reason(said):
    assert isinstance(said, Refusal), said
    return said.reason
