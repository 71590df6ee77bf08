"""The record of human judgement: prompts, responses, rankings, and what is derived from them."""
