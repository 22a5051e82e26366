"""Makes the set "llm": rewrites by a chat model of any OpenAI-compatible endpoint.

    python -m ssl_guard augment --config=configs/augment/llm.py --dry_run
    python -m ssl_guard augment --config=configs/augment/llm.py \\
        --config.augment.llm.base_url=http://localhost:8000/v1 --config.augment.llm.model=NAME

Two views of every unlabelled row. The dry run prints requests, tokens and cost; divide them by the
rate limits for the time. Answers are cached, so an interrupted or repeated run only sends the
missing requests. The API key is read from the environment variable named by key_env.
"""

from ml_collections import ConfigDict

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default()
    with config.unlocked():
        config.augment.llm = ConfigDict(
            dict(
                model="NAME",
                cache="data/llm_cache.jsonl",
                template="rewrite_prompt",
                backend="endpoint",  # or llama_cpp, see ssl_guard/augment/llm/rewrite.py
                base_url="http://localhost:8000/v1",
                key_env="",
                temperature=0.7,
                max_tokens=512,
                concurrency=16,
                requests_per_minute=0.0,  # 0 for no limit
                tokens_per_minute=0.0,
                max_cost=0.0,  # the run stops there; 0 for no limit
                prompt_price=0.0,  # per million tokens
                completion_price=0.0,
            )
        )
    config.augment.name = "llm"
    config.augment.ops = ("llm", "tfidf")  # tfidf if the model refuses
    config.augment.copies = 2
    gates = config.augment.gates
    gates.refusal = True
    gates.overlap = 0.9
    gates.length = (0.3, 3.0)
    gates.language = 0.8
    gates.similarity = 0.4
    return base.variant(config, arg)
