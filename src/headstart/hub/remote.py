"""Files from the Hugging Face Hub: what a repository holds at a commit, and single files of it, checked.

Thin over huggingface_hub, which is imported at use: its session, its tokens and its cache are used as they are. What it
does not do is done here: a download that broke off goes on where it stopped, in another process too, and every file is
held against the digest that the Hub states for it (sha256 of large files, git's sha1 of small ones). Offline, and for
what the Hub's own cache holds already, no request is made. Nothing is told to the Hub but what is asked of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from headstart import jsontext
from headstart.errors import HeadstartError, InputError, ModelError, NotFound, StorageError, near

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much (bytes)

LARGEST = 8 << 30  # bytes of one file
MOST = 2000  # files in a repository
ATTEMPTS = 4  # in a row that brought nothing
WAIT = 0.5  # seconds before the second attempt, then doubled
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,95}/[A-Za-z0-9._\-]{1,96}")
_REVISION = re.compile(r"[A-Za-z0-9._\-/]{1,200}")
COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Remote:
    """One file of a repository, as the Hub states it."""

    size: int | None  # bytes
    sha256: str | None = None  # of large files
    git: str | None = None  # of small files: sha1 of "blob SIZE\0" and the content

    def check(self, path: Path) -> str:
        """The file's sha256. Raises ModelError where the file is not the stated one."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            raise ModelError(f"{path.name}: it has {size:,} bytes, the Hub states {self.size:,}.")
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if self.sha256 is not None and found != self.sha256:
            raise ModelError(
                f"{path.name}: its content is not what the Hub states: sha256 {found} came, {self.sha256} was stated. "
                f"It was removed; try again, and if this comes again, do not trust the source."
            )
        if self.sha256 is None and self.git is not None:
            sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    sha1.update(block)
            if sha1.hexdigest() != self.git:
                raise ModelError(
                    f"{path.name}: its content is not what the Hub states: git digest {sha1.hexdigest()} came, "
                    f"{self.git} was stated. It was removed; try again."
                )
        return found


@dataclass(frozen=True)
class Listing:
    """The files of one commit of a repository."""

    repo: str
    revision: str  # the commit
    files: Mapping[str, Remote] = field(default_factory=dict)
    local: bool = False  # read from the Hub's cache on this machine, without a request


def offline() -> str | None:
    """The variable that forbids the network, if one is set."""
    for variable in ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "0").strip().lower() not in ("", "0", "false", "no"):
            return variable
    return None


def endpoint() -> str:
    """Where the Hub is: $HF_ENDPOINT, else huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def parse(source: str) -> tuple[str, str | None]:
    """ "hf:owner/name@revision" -> ("owner/name", "revision" or None). Raises InputError."""
    repo, at, revision = source.removeprefix("hf:").partition("@")
    if not _NAME.fullmatch(repo) or ".." in repo or "--" in repo:
        raise InputError(f"{source!r} names no repository of the Hub: write hf:OWNER/NAME or hf:OWNER/NAME@REVISION.")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise InputError(f"{source!r}: {revision!r} is no revision: write a branch, a tag or a commit after the @.")
    return repo, revision or None


def _library() -> Any:
    """huggingface_hub, told to report nothing of us."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
    except ImportError as error:  # tokenizers brings it; somebody took it away
        raise InputError("the Hub is reached through huggingface_hub: pip install huggingface_hub") from error
    return huggingface_hub


def _allowed(what: str) -> None:
    if variable := offline():
        raise InputError(f"{what} is not on this machine, and {variable} is set: unset it once to fetch it.")


def _headers() -> dict[str, str]:
    token = _library().get_token()
    return {"user-agent": "headstart", **({"authorization": f"Bearer {token}"} if token else {})}


@contextmanager
def _explained(repo: str, what: str) -> Iterator[None]:
    """Errors of the library in our words."""
    from huggingface_hub import errors

    token = "your token was sent" if _library().get_token() else "no token was sent"
    page = f"{endpoint()}/{repo}"
    try:
        yield
    except HeadstartError:
        raise
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repo} is gated ({token}): accept its terms on {page}, then run `hf auth login` or set HF_TOKEN, and try "
            f"again."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NotFound(
            f"{repo} has no such revision ({what}); its branches and commits are on {page}/commits."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise NotFound(
            f"the Hub shows no model {repo!r} ({token}).{_siblings(repo)} If it is private or gated, accept its terms "
            f"on {page} and run `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.EntryNotFoundError as error:
        raise NotFound(f"{repo} holds no {what}.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise InputError(
                f"the Hub refuses {what} of {repo} (answer {status}; {token}): accept its terms on {page}, then run "
                f"`hf auth login` or set HF_TOKEN."
            ) from error
        raise InputError(f"the Hub answered {status} for {what} of {repo}. Try again later.") from error
    except errors.OfflineModeIsEnabled as error:
        raise InputError(f"{what} of {repo} is not on this machine, and the Hub's library is offline.") from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # the root of its transport's errors
        said = str(error).strip() or type(error).__name__
        raise InputError(
            f"the Hub at {endpoint()} cannot be reached for {what} of {repo} ({said}). Check the network; what was "
            f"fetched so far is kept, and the next try goes on from there."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # an answer of another kind
        raise InputError(
            f"{endpoint()} does not answer as the Hub does for {what} of {repo} ({str(error)[:100]}). Look at HF_ENDPOINT."
        ) from error


def _siblings(repo: str) -> str:
    """Near names among the owner's other models; '' when the Hub does not say: a hint is worth no error."""
    from huggingface_hub import errors

    session, owner = _library().get_session(), repo.split("/")[0]
    try:
        answer = session.get(
            f"{endpoint()}/api/models", params={"author": owner, "limit": "200"}, headers=_headers(), timeout=10
        )
        found = jsontext.parse(answer.text) if answer.status_code == 200 else []
    except (errors.HTTPError, ValueError):  # type: ignore[attr-defined]
        return ""
    known = [one.get("id") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return near(repo, [name for name in known if isinstance(name, str) and name])


def listing(repo: str, revision: str | None = None) -> Listing:
    """The files of a repository at a revision (its main branch), with sizes and digests, at a resolved commit.

    Offline, what the Hub's cache on this machine holds of it. Raises InputError, NotFound, ModelError.
    """
    if offline():
        return _local(repo, revision)
    url = f"{endpoint()}/api/models/{repo}" + (f"/revision/{quote(revision, safe='')}" if revision else "")
    library, found = _library(), {}
    with _explained(repo, f"revision {revision or 'main'}"):
        answer = library.get_session().get(
            url, params={"blobs": "true"}, headers=_headers(), timeout=30, follow_redirects=True
        )
        library.utils.hf_raise_for_status(answer)
        said = jsontext.parse(answer.text)
        commit, files = str(said["sha"]), list(said["siblings"])
        if len(files) > MOST:
            raise InputError(f"{repo} has {len(files):,} files; that is no single backbone.")
        for one in files:
            large, small = (one.get("lfs") or {}).get("sha256"), one.get("blobId")
            size = one.get("size")
            if not isinstance(size, int) or not (large is None or _SHA256.fullmatch(large)):
                raise ValueError(f"the file {one.get('rfilename')!r} has no size, or no digest")
            found[str(one["rfilename"])] = Remote(size, large, None if large else small)
    if not COMMIT.fullmatch(commit):
        raise ModelError(f"the Hub at {endpoint()} names no commit for {repo}: {commit[:80]!r}.")
    for name in found:
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise ModelError(f"{repo} lists a file with the name {name!r}, which leads out of its folder.")
    return Listing(repo, commit, found)


def _local(repo: str, revision: str | None) -> Listing:
    """What the Hub's cache on this machine holds of a revision."""
    for probe in ("config.json", "README.md", "tokenizer.json", "model.onnx", "onnx/model.onnx"):
        if path := cached(repo, revision or "main", probe):
            root = path.parents[probe.count("/")]
            files = {
                entry.relative_to(root).as_posix(): Remote(entry.stat().st_size)
                for entry in sorted(root.rglob("*"))
                if entry.is_file()
            }
            return Listing(repo, root.name, files, local=True)
    raise InputError(
        f"{repo} is not in the Hub's cache on this machine, and {offline()} is set: unset it once to fetch it."
    )


def cached(repo: str, revision: str, name: str) -> Path | None:
    """A file in the Hub's cache on this machine, or None. No request is made."""
    found = _library().try_to_load_from_cache(repo, name, revision=revision, cache_dir=_cache())
    return Path(found) if isinstance(found, str) else None


def _cache() -> str:
    """The Hub's cache folder, as the environment has it now."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return chosen
    if home := os.environ.get("HF_HOME"):
        return str(Path(home) / "hub")
    return str(_library().constants.HF_HUB_CACHE)


def fetch(listed: Listing, name: str, target: Path, progress: Progress | None = None) -> str:
    """Put one file of a listing at `target`, and give its sha256.

    It is copied from the Hub's cache where that has it; else downloaded, first to TARGET.part, which is kept when the
    connection breaks and gone on from at the next call. Raises InputError, NotFound, ModelError, StorageError.
    """
    stated = listed.files.get(name)
    if stated is None:
        raise NotFound(f"{listed.repo} holds no {name}.{near(name, listed.files)}")
    if stated.size is not None and stated.size > LARGEST:
        raise InputError(f"{name} of {listed.repo} has {stated.size:,} bytes; at most {LARGEST:,} are taken.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file():
            return _checked(stated, target)
        part = target.with_name(target.name + ".part")
        free, needed = shutil.disk_usage(target.parent).free, stated.size or 0
        if needed - (part.stat().st_size if part.exists() else 0) > free:
            raise StorageError(f"{target.parent}: {name} has {needed:,} bytes, and {free:,} are free on the disk.")
        if found := cached(listed.repo, listed.revision, name):
            shutil.copyfile(found, part)
        else:
            _allowed(f"{name} of {listed.repo}")
            _download(listed, name, stated, part, progress)
        digest = _checked(stated, part)
        os.replace(part, target)
    except OSError as error:
        if isinstance(error, InputError | StorageError):
            raise
        raise StorageError(f"{target}: could not be written: {error.strerror or error}.") from error
    return digest


def _checked(stated: Remote, path: Path) -> str:
    try:
        return stated.check(path)
    except ModelError:
        path.unlink()
        raise


def _download(listed: Listing, name: str, stated: Remote, part: Path, progress: Progress | None) -> None:
    """Stream a file to the end of `part`. What was there before is not asked for again."""
    from huggingface_hub import errors

    url = _library().hf_hub_url(listed.repo, name, revision=listed.revision, endpoint=endpoint())
    failed = 0
    with _explained(listed.repo, name):
        while True:
            before = part.stat().st_size if part.exists() else 0
            if stated.size is not None and before >= stated.size:
                if before == stated.size and part.exists():
                    return
                part.unlink(missing_ok=True)
                before = 0
            try:
                _stream(url, name, stated, part, before, progress)
                now = part.stat().st_size
                if stated.size is None or now >= stated.size:
                    return
            except errors.HfHubHTTPError:
                raise
            except errors.HTTPError:  # type: ignore[attr-defined]
                now = part.stat().st_size if part.exists() else 0
                failed = 0 if now > before else failed + 1
                if failed >= ATTEMPTS:
                    raise
                time.sleep(WAIT * 2**failed)
                continue
            failed = 0 if now > before else failed + 1  # it ended early, without an error
            if failed >= ATTEMPTS:
                raise InputError(
                    f"the Hub sent {now:,} of the {stated.size:,} bytes of {name}, {ATTEMPTS} times. They are kept; try "
                    f"again later."
                )


def _stream(url: str, name: str, stated: Remote, part: Path, start: int, progress: Progress | None) -> None:
    """One answer of the server, written to `part` from byte `start` on."""
    library = _library()
    headers = {**_headers(), "accept-encoding": "identity"}
    if start:
        headers["range"] = f"bytes={start}-"
    limit = stated.size if stated.size is not None else LARGEST
    with library.get_session().stream("GET", url, headers=headers, timeout=30, follow_redirects=True) as answer:
        if start and answer.status_code == 416:  # the file is shorter than what we have
            part.unlink()
            return
        if answer.status_code >= 400:
            answer.read()
        library.utils.hf_raise_for_status(answer)
        resumed = answer.status_code == 206 and answer.headers.get("content-range", "").startswith(f"bytes {start}-")
        done = start if resumed else 0
        with open(part, "ab" if resumed else "wb") as file:
            for block in answer.iter_bytes():  # as they come: of a broken answer nothing is lost
                done += len(block)
                if done > limit:
                    file.close()
                    part.unlink()
                    raise ModelError(f"{name}: the server sends more than the {limit:,} bytes that were stated.")
                file.write(block)
                if progress:
                    progress(name, done, limit)
