"""How Sphinx shows the site. `build.py` beside this file writes what it reads."""

import re
from pathlib import Path

ROOT = next(p for p in Path(__file__).parents if (p / "pyproject.toml").is_file())
ADDRESS = re.search(r'^Repository = "(.*?)/?"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]

project = "Simple Diffusion"
copyright = "The Simple Diffusion contributors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
nb_execution_mode = "off"  # the notebooks hold their outputs
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
default_role = "literal"  # `name` in a docstring
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = "$ "

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {
    "repository_url": ADDRESS,
    "use_repository_button": True,
    "use_download_button": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search stands at the side
}


def plain_to_rst(lines: list[str]) -> list[str]:
    """A docstring's lines: `name: meaning` becomes a list, code and what is aligned stay so."""
    made: list[str] = []
    literal, section, inside = False, False, ""
    for line in (line.replace("|", r"\|") for line in lines):
        indented = line.startswith(" ")
        if not indented:
            literal, section = False, bool(re.match(r"[A-Z]\w+:$", line))
        if section:  # Args:, Returns: and so on, which napoleon reads
            made.append(line)
        elif match := re.match(r"([a-z_][\w., ]*): ", line) or (
            not literal and re.match(r" {4}([a-z_]\w*(?:, \w+)*): ", line)
        ):
            made += [""] if indented and made and not made[-1].startswith(("- ", "  ")) else []
            made += [f"- **{match[1]}**: {line[match.end() :]}"]
        elif indented and (literal or re.search(r"\S {2,}\S|\w\(.*\):?$", line)):
            if not literal:
                inside = "  " if made and made[-1].startswith(("- ", "  ")) else ""  # of a list
                made += ["", f"{inside}::", ""]
            made.append(f"{inside}{line}".replace(r"\|", "|"))
            literal = True
        elif indented:
            made.append(f"  {line.strip()}")
        else:
            made += [""] if made and made[-1].startswith(("  ", "- ")) else []
            made.append(line)
    return made


def setup(app) -> None:
    def process(app, what, name, obj, options, lines) -> None:
        lines[:] = plain_to_rst(lines)

    def skip(app, what, name, obj, skip, options) -> bool | None:
        return True if name == "set" else None  # matplotlib adds it to every artist

    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip)
