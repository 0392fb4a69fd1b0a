"""From templates to pages that run their own scripts only and let no request leave."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from neuropil.errors import MissingExtraError

STYLE, SCRIPT, PLOTLY = "page.css", "page.js", "plotly.min.js"
ASSETS = "assets"  # directory of a site with what its pages share


def render(
    template: str,
    context: Mapping[str, Any],
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    site: str | None = None,
) -> str:
    """A page from a template of this package.

    `styles` and `scripts` stand inside the page. With `site`, the relative address of a site's root, the page loads
    what the pages of the site share instead. Raises MissingExtraError without jinja2.
    """
    try:
        import jinja2  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("a report needs jinja2; pip install 'neuropil[bench]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    assets = None if site is None else f"{site}/{ASSETS}"
    return environment.get_template(template).render(
        **context, styles=styles, scripts=scripts, policy=policy(scripts, shared=site is not None), site=site,
        assets=assets,
    )  # fmt: skip


def policy(scripts: Sequence[str], *, shared: bool) -> str:
    """Content policy that runs these very scripts and nothing else, and lets no request leave the page."""
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    own = ["'self'", "file:"] if shared else []
    allowed = {
        "default-src": ["'none'"],
        "script-src": [*hashes, *own] or ["'none'"],
        "style-src": ["'unsafe-inline'", *own],
        "img-src": ["data:", "blob:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return "; ".join(f"{kind} {' '.join(sources)}" for kind, sources in allowed.items())


def write_assets(site: Path) -> None:
    """Write what the pages of a site share: Plotly once, the style and the script of report pages."""
    directory = site / ASSETS
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in ((PLOTLY, plotly_script()), (STYLE, source(STYLE)), (SCRIPT, source(SCRIPT))):
        (directory / name).write_text(text, encoding="utf-8", newline="\n")


@lru_cache
def source(name: str) -> str:
    """Text of a template, style or script of this package."""
    return (resources.files("neuropil.bench.report") / "templates" / name).read_text(encoding="utf-8")


def plotly_script() -> str:
    """Plotly's own bundled script. Raises MissingExtraError without plotly."""
    try:
        from plotly.offline import get_plotlyjs  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("a report needs plotly; pip install 'neuropil[bench]'") from error
    return str(get_plotlyjs())


def inert_json(text: str) -> str:
    """JSON that cannot end the script element it stands in.

    >>> inert_json('"</script>"')
    '"\\\\u003c/script\\\\u003e"'
    """
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def packed(text: str) -> str:
    """Text as base64 of its zlib stream, which the page's script unpacks.

    >>> zlib.decompress(base64.b64decode(packed("plot"))).decode()
    'plot'
    """
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
