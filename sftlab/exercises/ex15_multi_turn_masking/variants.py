"""ChatML with one change each: templates on which ways to make a mask differ."""

from __future__ import annotations

from sftlab.chat import CHATML

BREAK = "{{ '\\n' }}{% endfor %}"
PROMPT = "{{ '<|im_start|>assistant\\n' }}"
ANSWER = "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
JOINED = CHATML.replace(BREAK, "{{ '' if loop.last else '\\n' }}{% endfor %}").replace(
    PROMPT, PROMPT.replace("<|im_start|>", "\\n<|im_start|>")
)
UNMARKED = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")
OUTSIDE = CHATML.replace(ANSWER, "{{ message['content'] }}{% endgeneration %}{{ '<|im_end|>' }}")
SHORTENED = CHATML.replace(  # as templates of reasoning models do
    "message['content'] + '<|im_end|>' }}{% endgeneration %}",
    "(message['content'] if loop.last else message['content'].split('</think>')[-1]) + '<|im_end|>' }}"
    "{% endgeneration %}",
)
TEMPLATES = {
    "ChatML": CHATML,
    "no line break at the end": JOINED,
    "no generation block": UNMARKED,
    "end of turn outside the block": OUTSIDE,
    "earlier answers shortened": SHORTENED,
}
