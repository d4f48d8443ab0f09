"""Git trees read without a checkout; real `git` on repositories made here."""

import os
import shutil
import subprocess

import pytest

from app.errors import BadInput, NotFound
from app.knowledge.sources import GitSpec, collect, is_complete
from app.knowledge.sources.git import find_git

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")


def git(folder, *arguments, data=None):
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@e.example",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@e.example",
        "GIT_COMMITTER_DATE": "2026-02-03T04:05:06+00:00",
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env=environment,
        input=data,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for name, content in {
        "README.md": "# Old",
        "docs/guide/a b.md": "guide",
        "docs/ümlaut.txt": "umlaut",
        "docs/tab\tand\nline.txt": "odd name",
        ".github/hidden.md": "hidden",
        "empty.md": "",
        "docs2/other.md": "other",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    git(folder, "tag", "v1")
    (folder / "README.md").write_text("# New")
    git(folder, "commit", "-q", "-a", "-m", "two")
    return folder


def by_id(found):
    return {document.external_id: document for document in found}


def test_a_tree_is_read_as_committed(repository, tmp_path):
    (repository / "README.md").write_text("not committed")
    (repository / "untracked.md").write_text("untracked")
    found = by_id(collect([GitSpec(str(repository))], tmp_path / "into"))
    assert {name: d.path.read_text() for name, d in found.items()} == {
        "README.md": "# New",
        "docs/guide/a b.md": "guide",
        "docs/ümlaut.txt": "umlaut",
        "docs/tab\tand\nline.txt": "odd name",
        "empty.md": "",
        "docs2/other.md": "other",
    }
    readme = found["README.md"]
    assert readme.metadata["commit"] == git(repository, "rev-parse", "HEAD")
    assert readme.metadata["committed_at"].startswith("2026-02-03T04:05:06")
    assert readme.path.parent == tmp_path / "into"
    assert is_complete(list(found.values()))


@pytest.mark.parametrize("ref", ["v1", "main~1", "refs/tags/v1"])
def test_an_older_ref_gives_the_older_content(repository, tmp_path, ref):
    found = by_id(collect([GitSpec(str(repository), ref)], tmp_path / "into"))
    assert found["README.md"].path.read_text() == "# Old"


def test_a_bare_repository_and_a_folder_of_it(repository, tmp_path):
    git(tmp_path, "clone", "-q", "--bare", str(repository), str(tmp_path / "bare.git"))
    found = by_id(collect([GitSpec(str(tmp_path / "bare.git"), "main", "docs")], tmp_path / "into"))
    assert set(found) == {"docs/guide/a b.md", "docs/ümlaut.txt", "docs/tab\tand\nline.txt"}


def test_links_submodules_pointers_and_giants_are_problems(repository, tmp_path):
    (repository / "link.md").symlink_to("/etc/passwd")
    (repository / "big.txt").write_text("x" * 2000)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    (repository / "manual.pdf").write_text(pointer)
    git(repository, "add", ".")
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{commit},module")
    git(repository, "commit", "-q", "-m", "odd")
    found = by_id(find_git(GitSpec(str(repository)), tmp_path, max_bytes=1000))
    for name, said in (
        ("link.md", "symbolic link"),
        ("module", "submodule"),
        ("manual.pdf", "LFS pointer"),
        ("big.txt", "2000 bytes, the limit is 1000"),
    ):
        assert said in found[name].problem
        assert found[name].path is None
    assert found["README.md"].path.read_text() == "# New"


def test_names_that_are_not_utf8_stay_apart(repository, tmp_path):
    blob = git(repository, "hash-object", "-w", "--stdin", data=b"x")
    tree = b"".join(b"100644 blob %s\tcaf%s.txt\0" % (blob.encode(), c) for c in (b"\xe8", b"\xe9"))
    tree_id = git(repository, "mktree", "-z", data=tree)
    commit = git(repository, "commit-tree", tree_id, "-m", "names")
    found = list(find_git(GitSpec(str(repository), commit), tmp_path))
    assert [d.path is not None for d in found] == [True, False]
    assert "same as another" in found[1].problem


@pytest.mark.parametrize(
    "ref", ["nowhere", "HEAD:README.md", "v1^{tree}", "main..v1", "../main", "", "@{99}"]
)
def test_what_is_no_commit_is_not_found(repository, tmp_path, ref):
    with pytest.raises(NotFound, match="branch, a tag or a commit"):
        list(find_git(GitSpec(str(repository), ref), tmp_path))


@pytest.mark.parametrize("ref", ["--help", "-c", "--upload-pack=touch pwned", "--output=x"])
def test_a_ref_is_never_an_option(repository, tmp_path, ref):
    with pytest.raises(BadInput, match="refused"):
        list(find_git(GitSpec(str(repository), ref), tmp_path))
    assert not (repository / "x").exists()


def test_folders_that_are_no_repository(tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(BadInput, match="not a git repository"):
        list(find_git(GitSpec(str(tmp_path / "plain")), tmp_path))
    with pytest.raises(NotFound, match="does not exist"):
        list(find_git(GitSpec(str(tmp_path / "nowhere")), tmp_path))


def test_a_folder_without_files_is_not_taken_for_an_empty_one(repository, tmp_path):
    with pytest.raises(NotFound, match="no files under 'dokcs'"):
        list(find_git(GitSpec(str(repository), "main", "dokcs"), tmp_path))


def test_programs_named_in_the_repository_are_not_run(repository, tmp_path):
    mark = tmp_path / "ran"
    for key in ("core.fsmonitor", "core.pager", "core.sshCommand", "filter.x.smudge",
                "diff.x.textconv", "core.hooksPath"):  # fmt: skip
        git(repository, "config", key, f"touch {mark}")
    (repository / ".git" / "info" / "attributes").write_text("* filter=x diff=x\n")
    assert list(find_git(GitSpec(str(repository)), tmp_path))
    assert not mark.exists()


def test_an_object_that_is_missing_is_a_problem_of_its_document(repository, tmp_path):
    blob = git(repository, "rev-parse", "HEAD:README.md")
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    found = by_id(find_git(GitSpec(str(repository)), tmp_path))
    assert "partial clone or damaged" in found["README.md"].problem
    assert found["docs2/other.md"].path.read_text() == "other"
