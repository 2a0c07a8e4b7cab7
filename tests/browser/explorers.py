"""Operating an explorer as a hand would: each of its controls is moved, and what it draws is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lab import LIMIT, Notebook
from playwright.sync_api import Locator, TimeoutError

QUESTION = "What is the capital of Norway?"
CANNOT = "This setting cannot be shown"


def cells(notebook: Notebook) -> list[int]:
    """The code cells that call an explorer."""
    return [index for index, source in notebook.sources().items() if "explore(" in source]


def controls(output: Locator) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each control of an explorer by its label, with the gesture that changes it.

    Texts come first: a menu may choose a view that has no use for them, and locks them.
    """
    for field in output.locator("input[type=text], textarea").all():
        yield label(field), lambda field=field: write(field)
    for handle in output.locator(".noUi-handle").all():
        there, back = keys(handle)
        yield label(handle), lambda handle=handle, key=there: handle.press(key)
        # Back, as a second slider may do nothing while the first is at another place.
        yield f"{label(handle)}, back", lambda handle=handle, key=back: handle.press(key)
    for menu in output.locator("select").all():
        yield label(menu), lambda menu=menu: choose(menu)
    for group in output.locator(".widget-toggle-buttons").all():
        other = group.locator("button:not(.mod-active)").last
        yield label(group), lambda other=other: other.click()
    for box in output.locator("input[type=checkbox]").all():
        yield label(box), lambda box=box: box.click()
    for button in output.locator(".jupyter-button:not(.widget-toggle-buttons *)").all():
        yield button.inner_text(), lambda button=button: button.click()
        if "widget-toggle-button" in button.get_attribute("class"):
            yield f"{button.inner_text()}, again", lambda button=button: button.click()


def label(control: Locator) -> str:
    """The words beside a control."""
    return control.evaluate(
        "e => { while (!e.querySelector('.widget-label')) e = e.parentElement;"
        " return e.querySelector('.widget-label').textContent; }"
    )


def keys(handle: Locator) -> tuple[str, str]:
    """The key that moves a slider by a step, and the one that moves it back."""
    low, now, high = (float(handle.get_attribute(f"aria-value{n}")) for n in ("min", "now", "max"))
    assert low < high
    return ("ArrowLeft", "ArrowRight") if now == high else ("ArrowRight", "ArrowLeft")


def choose(menu: Locator) -> None:
    """The next entry of a drop-down list, the first after the last."""
    entries = menu.locator("option").count()
    menu.select_option(index=(menu.evaluate("e => e.selectedIndex") + 1) % entries)


def write(field: Locator) -> None:
    """Another text, and Tab: a text field reports when it is left."""
    field.fill(QUESTION if field.input_value() != QUESTION else "What does the owl eat?")
    field.press("Tab")


def drawn(output: Locator) -> str:
    """All that an explorer shows beside its controls: pictures are text here as well."""
    return "".join(
        output.locator(".widget-html-content").evaluate_all("all => all.map(e => e.innerHTML)")
    )


def settle(notebook: Notebook, output: Locator) -> None:
    """Wait until the kernel has nothing to do and what it drew is in the page: 50 ms without a change."""
    notebook.wait_for_kernel()
    output.evaluate(
        """e => new Promise(done => {
            const quiet = () => { watch.disconnect(); done(); };
            let timer = setTimeout(quiet, 50);
            const watch = new MutationObserver(
                () => { clearTimeout(timer); timer = setTimeout(quiet, 50); });
            watch.observe(e, {childList: true, subtree: true, characterData: true});
        })"""
    )


def operate(notebook: Notebook, output: Locator) -> dict[str, str]:
    """Move every control once. Gives the label of each -> what went wrong, "" if the picture followed."""
    told = {}
    for name, gesture in controls(output):
        settle(notebook, output)
        before = drawn(output)
        gesture()
        try:
            notebook.page.wait_for_function(
                "([e, before]) => [...e.querySelectorAll('.widget-html-content')]"
                ".map(e => e.innerHTML).join('') != before",
                arg=[output.element_handle(), before],
                timeout=LIMIT,
            )
        except TimeoutError as error:
            raise AssertionError(f"{notebook.name}: {name!r} changed nothing") from error
        settle(notebook, output)
        told[name] = CANNOT if CANNOT in output.inner_text() else ""
    return told
