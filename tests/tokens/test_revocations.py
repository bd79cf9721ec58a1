import pytest

from fastgate.model import Mark
from fastgate.tokens.revocation import Revocations, RevocationsFullError
from tests.tokens.parts import NOW, active


@pytest.fixture
def revocations(clock):
    return Revocations(clock, ttl=100.0, max_entries=4)


def test_a_revoked_token_stays_revoked_until_its_exp(clock, revocations):
    """T24: for the whole remaining life of the token."""
    revocations.revoke_token(b"k", NOW + 1000.0)
    assert list(revocations.tokens) == [b"k"]
    clock.pass_(999)
    assert revocations.token_revoked(b"k")
    assert revocations.covers(b"k", active(sub="alex"))
    assert not revocations.token_revoked(b"other")
    clock.pass_(1)
    assert not revocations.token_revoked(b"k")
    assert len(revocations) == 0


def test_a_revoked_token_without_exp_stays_revoked_for_the_ttl(clock, revocations):
    """T24: where no end is known, the configured one."""
    revocations.revoke_token(b"k")
    clock.pass_(99)
    assert revocations.token_revoked(b"k")
    clock.pass_(1)
    assert not revocations.token_revoked(b"k")


def test_revoking_again_never_shortens(clock, revocations):
    """T24: a second revocation without a known end does not forget the first one's."""
    revocations.revoke_token(b"k", NOW + 1000.0)
    revocations.revoke_token(b"k")
    clock.pass_(500)
    assert revocations.token_revoked(b"k")


@pytest.mark.parametrize("jump", [3600.0, 10_000_000.0, -3600.0])
def test_the_wall_clock_jumps(clock, revocations, jump):
    """I13: no jump of the wall clock revives a revoked token."""
    revocations.revoke_token(b"k")
    revocations.revoke_claim("sub", "alex")
    clock.jump(jump)
    clock.pass_(50)
    assert revocations.token_revoked(b"k")
    assert revocations.covers(b"other", active(sub="alex", iat=NOW - 5))


@pytest.mark.parametrize(("iat", "covered"), [(NOW - 1, True), (NOW, True), (NOW + 1, False), (None, True)])
def test_a_claim_revocation_covers_tokens_issued_until_then(clock, revocations, iat, covered):
    """T24: tokens of the same second and tokens without iat are covered, later ones are not."""
    clock.pass_(0.9)
    revocations.revoke_claim("sub", "alex")
    clock.pass_(10)
    assert revocations.covers(b"k", active(sub="alex", iat=iat)) is covered


@pytest.mark.parametrize("claim", ["sub", "sid", "client_id"])
def test_a_claim_revocation_covers_that_value_of_that_claim_only(revocations, claim):
    """T24: nobody else is logged out."""
    revocations.revoke_claim(claim, "x")
    assert revocations.covers(b"k", active(**{claim: "x"}))
    assert not revocations.covers(b"k", active(**{claim: "y"}))
    assert not revocations.covers(b"k", active(other="x"))
    assert not revocations.covers(b"k", active(**{claim: ["x"]}))


@pytest.mark.parametrize(("iat", "covered"), [(NOW - 30, True), (NOW - 29, False), (NOW, False), (None, True)])
def test_a_claim_revocation_of_a_moment_ago(clock, revocations, iat, covered):
    """T24: what was told late covers what was issued until it happened, not what was issued since."""
    revocations.revoke_claim("sub", "alex", NOW - 30)
    assert revocations.covers(b"k", active(sub="alex", iat=iat)) is covered


def test_an_issuer_whose_clock_is_ahead(clock, revocations):
    """T24: its tokens are held against its own clock."""
    revocations.revoke_claim("sid", "s1", NOW + 30)
    assert revocations.covers(b"k", active(sid="s1", iat=NOW + 30))
    assert not revocations.covers(b"k", active(sid="s1", iat=NOW + 31))


def test_an_older_revocation_takes_nothing_back(clock, revocations):
    """T24: the later moment holds, whichever was told first."""
    revocations.revoke_claim("sub", "alex")
    revocations.revoke_claim("sub", "alex", NOW - 30)
    assert revocations.covers(b"k", active(sub="alex", iat=NOW))


@pytest.mark.parametrize(
    ("claims", "covered"),
    [
        ({"sub": "alex"}, True),
        ({"sub": "alex", "sid": ""}, True),
        ({"sub": "alex", "sid": ["s1"]}, True),
        ({"sub": "alex", "sid": "s2"}, False),
        ({"sub": "sam"}, False),
        ({}, False),
    ],
)
def test_a_session_ended_and_tokens_do_not_name_theirs(revocations, claims, covered):
    """T24: which of them belong to the session cannot be known; those of other sessions do not."""
    revocations.revoke_claim("sub_without_sid", "alex")
    assert revocations.covers(b"k", active(**claims)) is covered


def test_everything_is_revoked(clock, revocations):
    """T24: all tokens issued until now, whatever their claims."""
    revocations.revoke_all()
    clock.pass_(5)
    assert revocations.covers(b"k", active())
    assert revocations.covers(b"k", active(sub="alex", iat=NOW))
    assert not revocations.covers(b"k", active(sub="alex", iat=NOW + 5))


def test_a_claim_revocation_lives_as_long_as_a_token_it_covered(clock, revocations):
    """T24: a token seen with a later exp stays revoked until then."""
    revocations.revoke_claim("sub", "alex")
    token = active(sub="alex", iat=NOW - 5, exp=NOW + 1000)
    assert revocations.covers(b"k", token)
    clock.pass_(900)
    assert revocations.covers(b"k", token)
    clock.pass_(100)
    assert not revocations.covers(b"k", token)
    assert len(revocations) == 0


def test_each_covering_revocation_is_kept_as_long_as_the_token(clock, revocations):
    """T24: two revocations cover the token; neither is forgotten because the other one was found first."""
    revocations.revoke_claim("sub", "alex")
    revocations.revoke_claim("client_id", "app")
    assert revocations.covers(b"k", active(sub="alex", client_id="app", iat=NOW, exp=NOW + 1000))
    clock.pass_(900)
    assert revocations.covers(b"l", active(sub="alex", iat=NOW))
    assert revocations.covers(b"m", active(client_id="app", iat=NOW))


def test_revoking_all_does_not_forget_longer_claim_revocations(clock, revocations):
    """T24: what takes the place of other revocations lives as long as they would have."""
    revocations.revoke_claim("sub", "alex")
    token = active(sub="alex", iat=NOW, exp=NOW + 1000)
    assert revocations.covers(b"k", token)
    revocations.revoke_all()
    clock.pass_(900)
    assert revocations.covers(b"k", token)


def test_a_full_table_refuses_rather_than_forgets(clock, revocations):
    """T24: a revocation that cannot be kept is not said to be taken; expired ones make room."""
    for number in range(3):
        revocations.revoke_token(bytes([number]), NOW + 10.0)
    revocations.revoke_claim("sub", "alex")
    with pytest.raises(RevocationsFullError):
        revocations.revoke_token(b"one more")
    with pytest.raises(RevocationsFullError):
        revocations.revoke_claim("sub", "sam")
    revocations.revoke_claim("sub", "alex")
    revocations.revoke_token(b"\x00")
    assert revocations.token_revoked(b"\x01")
    clock.pass_(10)
    revocations.revoke_token(b"one more")
    assert revocations.token_revoked(b"one more")
    assert len(revocations) == 3


def test_revoking_all_always_finds_room(clock, revocations):
    """T24: the last resort never fails."""
    for number in range(4):
        revocations.revoke_claim("sub", str(number))
    revocations.revoke_all()
    assert len(revocations) == 1


def test_an_unknown_claim_is_a_mistake_of_the_caller(revocations):
    """T13: only sub, sid and client_id."""
    with pytest.raises(ValueError, match="sub, sid or client_id"):
        revocations.revoke_claim("scope", "read")
    assert len(revocations) == 0


def test_its_repr_shows_counts_only(revocations):
    """T12: no subject and no key."""
    revocations.revoke_claim("sub", "alex")
    revocations.revoke_token(b"k")
    assert repr(revocations) == "<Revocations tokens=1 claims=1>"


def test_the_wall_clock_jumps_back_before_exp(clock, revocations):
    """I13: by the wall clock the token lives longer now, and so does its revocation."""
    revocations.revoke_token(b"k", NOW + 1000.0)
    clock.jump(-3600)
    clock.pass_(4599)
    assert revocations.token_revoked(b"k")
    clock.pass_(1)
    assert not revocations.token_revoked(b"k")


def test_marks_tell_another_worker_everything(clock, revocations):
    """T24: what one ledger knows, another learns, and learning it twice changes nothing."""
    revocations.revoke_token(b"k", NOW + 1000.0)
    revocations.revoke_claim("sub", "alex")
    other = Revocations(clock, ttl=5.0, max_entries=4)
    for mark in revocations.marks() * 2:
        other.take(mark)
    assert sorted(other.marks()) == sorted(revocations.marks())
    clock.pass_(99)
    assert other.token_revoked(b"k")
    assert other.covers(b"x", active(sub="alex", iat=NOW))
    revocations.revoke_all()
    for mark in revocations.marks():
        other.take(mark)
    assert sorted(other.marks()) == sorted(revocations.marks())
    assert other.covers(b"x", active(sub="somebody", iat=NOW + 99))


def test_a_mark_that_comes_late_neither_shortens_nor_replaces_a_newer_one(clock, revocations):
    """T24: messages may arrive in any order."""
    clock.pass_(10)
    revocations.revoke_claim("sub", "alex")
    revocations.take(Mark("sub", "alex", int(NOW), NOW + 20))
    revocations.take(Mark("all", "", int(NOW), NOW + 20))
    assert revocations.covers(b"x", active(sub="alex", iat=NOW + 10))
    assert not revocations.covers(b"x", active(sub="other", iat=NOW + 10))
    assert revocations.covers(b"x", active(sub="other", iat=NOW))
    clock.pass_(95)
    assert revocations.covers(b"x", active(sub="alex", iat=NOW + 10))


@pytest.mark.parametrize("mark", [Mark("jti", "x", 1, 2.0), Mark("token", "no hex", 1, 2.0)])
def test_what_is_no_mark_is_refused(revocations, mark):
    """A message that makes no sense revokes nothing."""
    with pytest.raises(ValueError, match=r"revoked by|hexadecimal"):
        revocations.take(mark)
    assert not revocations.marks()
