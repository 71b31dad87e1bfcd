"""The pattern of a text in a request -> what an error says when a text does not match it, instead of a regular
expression. A test checks that no pattern of the OpenAPI document is missing."""

from __future__ import annotations

from bookclub_platform.core.accounts import USERNAME, USERNAME_RULE
from serving.schemas.accounts import SCOPES
from serving.schemas.cursor import BY_ID, PLACE
from serving.schemas.requests import DATA_VERSION, INKED, INKED_LINE, ONE_LINE, RECOMMENDATION_ID
from serving.schemas.segments import SEGMENT_ID

_CURSOR = "Input should be `next` of the previous page; leave it out for the first page"

RULES = {
    ONE_LINE: "Input should be one line, without control characters such as tabs and line breaks",
    INKED: "Input should contain more than whitespace",
    INKED_LINE: "Input should be one line with more than whitespace, without control characters",
    DATA_VERSION: "Input should be the Bookclub-Data-Version of a response: a number without leading zeros",
    RECOMMENDATION_ID: "Input should be `id` of a list of recommendations, such as tfidf_model/1@50",
    SEGMENT_ID: "Input should be `id` of a segment, such as 3-1",
    BY_ID: _CURSOR,
    PLACE: _CURSOR,
    SCOPES: "Input should be names of scopes in lower case, separated by spaces",
    USERNAME: f"Input should have {USERNAME_RULE.rstrip('.')}",
}
