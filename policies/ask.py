"""What is asked, in the terms policies speak about. No content, only sizes and kinds."""

import msgspec


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """One request before routing. Token figures are whole tokens. Kept with decisions: new fields
    go to the end, with a default.
    """

    model: str
    operation: str  # chat | completions | embeddings
    capabilities: frozenset[str]  # what the request needs: operation plus tools, vision, ...
    stream: bool
    input_bound: int  # no tokeniser can make more of the prompt
    input_estimate: int  # calibrated; for ranking and rate limits, never for a hold
    output_wanted: int  # per choice: the client's word or the policy's default; embeddings: 0
    choices: int  # answers to be generated: n or best_of, for each prompt
    prompts: int = 1  # how many the request carries; each must fit the context window alone
    prefix: int = 0  # 16 bits of a keyed hash of how the prompt begins; 0: too short, or not wanted
