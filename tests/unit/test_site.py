"""The site of the docs: translated pages say what the English ones say, and every release has a folder and a link."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.paths import DOCS, ROOT

PAGES = {"index.md": "index.md", "quickstart.md": "quickstart.md", "on-call.md": "ways/on-call.md"}
"""Translated pages, and the English page of each."""
SCRIPTS = {"zh": re.compile(r"[\u4e00-\u9fff]"), "ru": re.compile(r"[\u0400-\u04ff]")}
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
COMMENT = re.compile(r"^<!--.*-->$", re.M)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def body(page: Path) -> str:
    """Return a page without the line that names its languages."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert "English" in lines[2], f"{page}: its third line leads to the other languages"
    return "\n".join([*lines[:2], *lines[3:]])


def targets(page: Path, text: str) -> Counter[str]:
    """Return where the links of a page lead, with translated pages counted as their English ones."""
    found: Counter[str] = Counter()
    for link in LINK.findall(text):
        if link.startswith("http"):
            found[link] += 1
            continue
        path, _, anchor = link.partition("#")
        place = (page.parent / path).resolve()
        assert place.exists(), f"{page}: {link}"
        if place.parent.name in SCRIPTS and place.parent.parent == DOCS:
            place = DOCS / PAGES[place.name]
        found[f"{place.relative_to(ROOT)}#{anchor}"] += 1
    return found


@pytest.mark.parametrize("language", SCRIPTS)
@pytest.mark.parametrize("name", PAGES)
class TestATranslatedPage:
    def test_has_the_headings_commands_and_links_of_the_english_one(self, name: str, language: str) -> None:
        here, english = DOCS / language / name, DOCS / PAGES[name]
        translated, original = body(here), body(english)
        assert FENCE.findall(translated) == FENCE.findall(original)
        assert COMMENT.findall(translated) == COMMENT.findall(original)
        translated, original = (FENCE.sub("", text) for text in (translated, original))
        assert re.findall(r"^#+", translated, re.M) == re.findall(r"^#+", original, re.M)
        assert re.findall(r"^(- |\|)", translated, re.M) == re.findall(r"^(- |\|)", original, re.M)
        assert Counter(CODE.findall(translated)) == Counter(CODE.findall(original))
        assert targets(here, translated) == targets(english, original)

    def test_is_translated_in_every_paragraph(self, name: str, language: str) -> None:
        text = FENCE.sub("", body(DOCS / language / name))
        paragraphs = [CODE.sub("", part) for part in re.split(r"\n\n|^- |^\| ", COMMENT.sub("", text), flags=re.M)]
        words = [part for part in paragraphs if re.search(r"[A-Za-z]{3}", LINK.sub("]", part))]
        assert len(words) > 5
        names = {"Kubernetes", "Prometheus", "MlflowHook", "Doctor", "MLflow"}
        assert [part for part in words if not SCRIPTS[language].search(part) and part.strip(" #|") not in names] == []

    def test_leads_to_the_other_languages_and_back(self, name: str, language: str) -> None:
        pages = [DOCS / PAGES[name], *(DOCS / each / name for each in SCRIPTS)]
        for page in pages:
            line = page.read_text(encoding="utf-8").splitlines()[2]
            assert {(page.parent / link).resolve() for link in LINK.findall(line)} == set(pages) - {page}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(DOCS / "site", root / "docs" / "site", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "docs" / "zh").mkdir()
    (root / "docs" / "index.md").write_text("# Title\n\nText.\n")
    (root / "docs" / "zh" / "index.md").write_text("# 文档\n\n[English](../index.md)\n")
    package = root / "airflow_mcp"
    (package / "notifications").mkdir(parents=True)
    for name in ("exceptions", "notifications/__init__", "notifications/webhook"):
        (package / f"{name}.py").write_text('"""Nothing."""\n')
    (package / "get_provider_info.py").write_text(
        "def get_provider_info():\n    return {kind: [] for kind in ('operators', 'sensors', 'hooks', 'triggers')}\n"
    )
    configuration = root / "docs" / "site" / "conf.py"
    configuration.write_text(configuration.read_text().replace('"ru": "ru"', ""))
    for version in ("0.1.0", "0.2.0"):
        (package / "__init__.py").write_text(f'"""The package."""\n__version__ = "{version}"\n')
        git(root, "init") if version == "0.1.0" else None
        git(root, "add", "--all")
        git(root, "commit", "--message", version)
        git(root, "tag", "v0.1.0" if version == "0.1.0" else "not-a-release")
    output = root / "out"
    done = build(root, output)
    assert done.returncode == 0, done.stderr
    return output


class TestTheSite:
    """Built by the real script and the real configuration, with pages and a package that are small."""

    def test_has_each_version_with_links_to_the_others(self, site: Path) -> None:
        assert (site / "versions.json").read_text() == '["latest", "v0.1.0"]\n'
        for folder, version, links in (
            (site, "0.2.0", {"#": "latest", "v0.1.0/index.html": "v0.1.0"}),
            (site / "v0.1.0", "0.1.0", {"../index.html": "latest", "../v0.1.0/index.html": "v0.1.0"}),
        ):
            text = (folder / "index.html").read_text()
            assert f"airflow-mcp {version}" in text
            versions = text[text.index('aria-label="Versions"') :].partition("</nav>")[0]
            found = dict(re.findall(r'href="([^"]+)"(?: aria-current="true")?>(\S+)</a>', versions))
            assert found == links
            assert all((folder / link).exists() for link in links if link != "#")

    def test_names_the_language_of_a_translated_page(self, site: Path) -> None:
        assert '<html class="no-js" lang="zh-CN"' in (site / "zh" / "index.html").read_text()
        assert '<html class="no-js" lang="en"' in (site / "index.html").read_text()

    def test_asks_no_other_host_for_anything(self, site: Path) -> None:
        for page in site.rglob("*.html"):
            assert re.findall(r'(?:src|<link[^>]+href)="(?:https?:)?//[^"]+"', page.read_text()) == [], page

    def test_a_page_with_a_warning_is_refused(self, site: Path, tmp_path: Path) -> None:
        root = tmp_path / "repository"
        shutil.copytree(site.parent, root, ignore=shutil.ignore_patterns("out"))
        (root / "docs" / "index.md").write_text("# Title\n\n[nowhere](nowhere.md)\n")
        done = build(root, tmp_path / "out")
        assert done.returncode != 0
        assert "nowhere.md" in done.stderr


def git(root: Path, *arguments: str) -> None:
    """Run Git as somebody whom it need not ask for a name."""
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def build(root: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a repository."""
    command = [sys.executable, str(root / "docs" / "site" / "build.py"), str(output)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=root)
