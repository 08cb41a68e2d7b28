"""Pages that repeat files of the project: changelog, contributing, security, citing."""

from __future__ import annotations

from pathlib import Path

import yaml

from site_pages.project import ROOT, link_out, write

CITING = """# Citing

If you use robo-rm in research, please cite it. Cite also the papers whose methods you use; each page names them.

```text
@software{{robo_rm,
  title = {{{title}}},
  author = {{{author}}},
  version = {{{version}}},
  license = {{{license}}}
}}
```
"""


def write_own_files(folder: Path) -> None:
    """Write the pages into ``folder``, a folder of ``docs/``."""
    at = folder.relative_to(ROOT).as_posix()
    for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY"):
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
        write(folder / f"{name.lower()}.md", link_out(text, "", at))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    citation["author"] = " and ".join("{" + author["name"] + "}" for author in citation["authors"])
    write(folder / "citing.md", CITING.format_map(citation))
