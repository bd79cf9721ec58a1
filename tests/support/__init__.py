"""Real parts for the tests: raw HTTP peers, identity providers, upstreams and the gateway itself."""
