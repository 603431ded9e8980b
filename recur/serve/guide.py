"""The page `/docs`: every address of the service with its options and a call to try, made from its OpenAPI document."""

from __future__ import annotations

import html
import re
from typing import Any

SENT = {"image": "image=@photo.jpg", "video": "video=@drive.mp4"}  # a file in a call to try


def guide(document: dict[str, Any]) -> str:
    """The page, as HTML that needs no script."""
    parts = []
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            parts.append(_address(path, method.upper(), call))
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>recur · service</title>
<link rel="icon" href="/static/icon.svg"><link rel="stylesheet" href="/static/page.css">
<link rel="stylesheet" href="/static/app.css"></head>
<body class="guide"><header><h1>The service of recur</h1></header><main>
<p>Bodies are forms, JSON, or a bare picture or video.
An error is <code>{{"error": "what: got, expected; what to do"}}</code>.
The same for programs: <a href="/openapi.json">openapi.json</a>. <a href="/">The page</a>.</p>
{"".join(parts)}
</main></body></html>
"""


def _address(path: str, method: str, call: dict[str, Any]) -> str:
    content = call.get("requestBody", {}).get("content", {})
    schema = content.get("multipart/form-data", {}).get("schema", {})
    rows = ""
    for name, told in schema.get("properties", {}).items():
        about = re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(str(told.get("description", ""))))
        rows += f'<tr><th scope="row"><code>{html.escape(name)}</code></th><td>{about}</td></tr>'
    table = f"<table><tbody>{rows}</tbody></table>" if rows else ""
    if method == "POST":
        named = [f"{name}='Some text.'" for name in schema.get("required", ())] or ["length=100"]
        files = [sent for kind, sent in SENT.items() if f"{kind}/*" in content]
        sent = " ".join(f"-F {each}" for each in files or named)
        example = f"curl {sent} http://127.0.0.1:8000{path}"
    else:
        example = f"curl http://127.0.0.1:8000{path}"
    return (
        f"<section><h2><code>{method} {html.escape(path)}</code></h2><p>{html.escape(call.get('summary', ''))}</p>"
        f'{table}<pre tabindex="0">{html.escape(example)}</pre></section>'
    )
