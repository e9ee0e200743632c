"""Write the repository's address everywhere: `make set-repository URL=https://github.com/you/book`.

The address that stands there now is read from _config.yml, so the command can be given again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://github\.com/([A-Za-z0-9-]+)/([A-Za-z0-9._-]+?)(?:\.git)?/?")


def forms(owner: str, name: str) -> tuple[str, ...]:
    """List how an address is written: the repository, the published pages, and their folder."""
    return (
        f"{owner}/{name}",
        f"https://{owner}.github.io/{name}/",
        f"notfound_urls_prefix: /{name}/",
        f"&& cd {name}",
    )


def replaced(text: str, old: tuple[str, ...], new: tuple[str, ...]) -> str:
    """Put the new forms in place of the old ones, all at once."""
    by_old = dict(zip(old, new, strict=True))
    # A longer name that begins alike is another repository.
    pattern = "|".join(rf"(?<![\w.-]){re.escape(one)}(?![\w-])" for one in old)
    return re.sub(pattern, lambda match: by_old[match[0]], text)


def set_repository(root: Path, files: list[Path], url: str) -> list[Path]:
    """Write the address into the files; return those that have changed.

    Raises:
        ValueError: if the address is not one of a repository on GitHub.
    """
    match = ADDRESS.fullmatch(url)
    if not match:
        raise ValueError(f"URL must look like https://github.com/you/book, got {url!r}")
    now = yaml.safe_load((root / "_config.yml").read_text("utf-8"))["repository"]["url"]
    here = ADDRESS.fullmatch(now)
    assert here, f"_config.yml has {now!r}"
    changed = []
    for path in files:
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:  # a picture or a font
            continue
        new = replaced(text, forms(*here.groups()), forms(*match.groups()))
        if new != text:
            path.write_bytes(new.encode("utf-8"))
            changed.append(path)
    return changed


def main() -> int:
    """Change what git tracks here."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    try:
        changed = set_repository(ROOT, [path for path in files if path.is_file()], sys.argv[1])
    except (ValueError, IndexError) as error:
        print(f"make set-repository URL=https://github.com/you/book: {error}", file=sys.stderr)
        return 2
    print(*(path.relative_to(ROOT) for path in changed), sep="\n")
    print(f"{len(changed)} files changed. Look at them with git diff, and commit them.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
