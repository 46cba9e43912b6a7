from policies.decision import Deny, DenyCode

PROMISED = """invalid_api_key model_not_found model_not_allowed residency_violation
    cost_ceiling_exceeded unpriced_model request_too_large rate_limit_exceeded insufficient_quota
    no_backend overloaded quota_unavailable upstream_error upstream_timeout"""


def test_codes_are_the_words_clients_were_promised() -> None:
    assert set(PROMISED.split()) <= {code.value for code in DenyCode}


def test_a_refusal_promises_nothing_about_retrying_unless_it_says_so() -> None:
    assert Deny(DenyCode.NO_BACKEND, "no backend").retry_after_ms is None
