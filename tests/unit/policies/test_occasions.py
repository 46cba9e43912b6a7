from typing import Any

from policies.compile import Scoped
from policies.match import Occasion
from policies.occasions import Occasions
from tests.policy_builders import a_document, only


def at_team(name: str, **sections: Any) -> Scoped:
    return ("team", 1, name, a_document(name=name, **sections))


def occasion(stream: bool = False, **tags: str) -> Occasion:
    return Occasion(stream, 0, tags, 0)


EU = at_team("eu", require={"residency": ["EU"]})
TAGGED = at_team("tagged", match={"tags": {"env": "prod"}}, cost={"max_per_request": "1"})
STREAMED = at_team("streamed", match={"stream": True}, prefer="fastest")


def test_without_such_documents_nothing_differs() -> None:
    documents = Occasions([EU], "chat")

    assert not documents.differ
    assert documents.pattern(occasion(stream=True)) == 0
    assert documents.policy(0).residency == only("EU")


def test_a_request_meets_the_documents_that_speak_of_it() -> None:
    documents = Occasions([EU, TAGGED, STREAMED], "chat")

    assert documents.differ
    plain = documents.policy(documents.pattern(occasion()))
    both = documents.policy(documents.pattern(occasion(stream=True, env="prod")))
    assert (plain.residency, plain.max_per_request_picos, plain.prefer) == (
        only("EU"),
        None,
        "cheapest",
    )
    assert (both.residency, both.max_per_request_picos, both.prefer) == (
        only("EU"),
        10**12,
        "fastest",
    )
    assert both.sources["max_per_request_picos"] == "tagged"


def test_who_asks_can_be_told_which_documents_applied() -> None:
    documents = Occasions([STREAMED, EU, TAGGED], "chat")

    assert documents.told(documents.pattern(occasion(env="prod"))) == [
        ("streamed", False),
        ("tagged", True),
    ]


def test_a_document_of_another_model_is_not_there() -> None:
    other = at_team("other", match={"models": ["embed"], "stream": True}, prefer="fastest")

    assert not Occasions([other], "chat").differ
    assert Occasions([other], "embed").differ
