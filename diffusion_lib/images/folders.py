"""Finding files: in a folder with its subfolders, in a .zip, in a bundled set."""

import os
import posixpath
import re
import stat
import threading
import zipfile
from collections import deque
from pathlib import Path

from diffusion_lib.config import BUNDLED
from diffusion_lib.errors import InputError, did_you_mean_path
from diffusion_lib.files import bundled_file, first_line
from diffusion_lib.images.account import LeftOut, leave_out
from diffusion_lib.images.formats import UNOPENED, has_image_extension, kind_by_extension
from diffusion_lib.images.medical import has_medical_extension

LARGEST_UNNAMED = 2**28  # bytes: a larger file without an image's extension is not opened
LARGEST_IMAGE = 2**31

# Where systems and network disks keep thumbnails and deleted files, beside the photos.
SYSTEM_FOLDERS = {
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin",
    "recycler", "system volume information", "lost+found", "found.000", "network trash folder",
    "temporary items",
}  # fmt: skip
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"}
# What a run of train writes, from before pictures were marked.
RUN_LOG = re.compile(r"(?P<folder>|.*/)runs/(?P<name>[^/]+)/stats\.jsonl")
RUN_PICTURE = re.compile(r"(?P<folder>|.*/)(out|plot)/(?P<name>[^/]+)_epoch_\d+\.png")


class FolderFiles:
    """The files of a folder and its subfolders, also of those that are links, each folder once.

    names: paths below the folder, sorted, of the files that may be images.
    left_out: the others.
    fingerprint: changes whenever a file is added, removed or changed.
    """

    def __init__(self, path: Path):
        self.path = path
        self.left_out: LeftOut = {}
        self.found: dict[str, tuple[int, ...]] = {}  # size, and times of the last changes in ns
        self.links: dict[str, tuple[int, int]] = {}  # files that are links: where the file is
        self.places: set[tuple[int, int]] = set()  # of the files that are no links
        self.search()
        for name, place in self.links.items():
            if place in self.places:
                leave_out(self.left_out, "link", name)
                del self.found[name]
            self.places.add(place)
        sizes = {name: size for name, (size, *_) in sorted(self.found.items())}
        self.names = possible_images(sizes, self.left_out)
        self.fingerprint = [str(path.resolve()), sorted(self.found.items())]

    def search(self) -> None:
        """Walk through all folders. Links come last, so that each folder has its own name."""
        folders, linked, searched = deque([("", self.path)]), deque(), set()
        while folders or linked:
            below, folder = folders.popleft() if folders else linked.popleft()
            try:
                place = place_of(os.stat(folder))
                if place in searched:
                    leave_out(self.left_out, "link", below.rstrip("/"))
                    continue
                searched.add(place)
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                where = below.rstrip("/") or str(self.path)
                leave_out(self.left_out, "unreadable", where, error.strerror or str(error))
                continue
            for entry in entries:  # of which there may be hundreds of thousands
                name = below + entry.name
                if kind := hidden_kind(entry.name):
                    leave_out(self.left_out, kind, name)
                elif is_folder(entry):
                    (linked if entry.is_symlink() else folders).append((f"{name}/", entry.path))
                else:
                    self.add(name, entry)

    def add(self, name: str, entry: os.DirEntry) -> None:
        """Note a file; size and times are -1 for one that cannot be reached."""
        try:
            status = os.stat(entry.path)
        except OSError:  # a link that leads nowhere, which is named when its turn comes
            self.found[name] = (-1, -1, -1)
            return
        if not stat.S_ISREG(status.st_mode):  # a pipe or a socket would block
            leave_out(self.left_out, "special", name)
            return
        # The time of the last change of the entry shows permissions, and files put in its place.
        self.found[name] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if entry.is_symlink():
            self.links[name] = place_of(status)
        else:
            self.places.add(place_of(status))

    def read(self, name: str, size: int = -1) -> bytes:
        """The content of a file, or only its first bytes."""
        with open(self.path / name, "rb") as file:
            return file.read(size)


class ZipFiles:
    """The same for the files in a .zip, which is never unpacked to disk."""

    def __init__(self, path: Path):
        self.left_out: LeftOut = {}
        self.members: dict[str, zipfile.ZipInfo] = {}  # of several of one name the last, as unzip
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
            status = path.stat()
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} cannot be read as a .zip file ({error}): PATH is a folder or a .zip file"
            ) from error
        for member in members:
            name = member.filename.replace("\\", "/")
            if name.endswith("/"):
                continue
            name = posixpath.normpath(f"/{name}").lstrip("/")  # without ./ and ../
            if kinds := list(filter(None, map(hidden_kind, name.split("/")))):
                leave_out(self.left_out, kinds[0], name)
            else:
                if name in self.members:
                    leave_out(self.left_out, "older", name)
                self.members[name] = member
        self.path = path
        sizes = {name: member.file_size for name, member in sorted(self.members.items())}
        self.names = possible_images(sizes, self.left_out)
        # A damaged archive may have the same list of contents as a sound one.
        entries = [(name, m.file_size, m.CRC) for name, m in sorted(self.members.items())]
        self.fingerprint = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, entries]
        self.opened = threading.local()  # an archive has one position: a thread needs its own

    def read(self, name: str, size: int = -1) -> bytes:
        """The content of a file, or only its first bytes."""
        if not hasattr(self.opened, "archive"):
            self.opened.archive = zipfile.ZipFile(self.path)
        with self.opened.archive.open(self.members[name]) as file:
            return file.read(size)


def find_files(path: str | Path) -> FolderFiles | ZipFiles:
    """The files at a path: of a folder, a .zip file, or a bundled set if no file has that name.

    Raises:
        InputError: no such path, or neither a folder nor a .zip.
    """
    if str(path) == "":
        raise InputError("the path of the images is empty: use . for the current folder")
    try:
        path = Path(path).expanduser()
        folder, file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, a user who is not there
        raise InputError(f"the path of the images cannot be used: {first_line(error)}") from error
    if folder:
        return FolderFiles(path)
    if file:
        return ZipFiles(path)
    if str(path) in BUNDLED:
        return ZipFiles(bundled_file(f"{path}.zip"))
    raise InputError(
        f"there is no folder or .zip file {path}, and no bundled set of that name "
        f"({', '.join(BUNDLED)}){did_you_mean_path(path, more=BUNDLED)}"
    )


def possible_images(sizes: dict[str, int], left_out: LeftOut) -> list[str]:
    """Of files and their sizes the names of those that may be images. The others are counted."""
    runs = {(run["folder"], run["name"]) for run in map(RUN_LOG.fullmatch, sizes) if run}
    headers = {name[:-4].lower() for name in sizes if name.lower().endswith(".hdr")}
    names = []
    for name, size in sizes.items():
        kind, picture = kind_by_extension(name), RUN_PICTURE.fullmatch(name)
        named = has_image_extension(name) or has_medical_extension(name)
        if name[-4:].lower() == ".img" and name[:-4].lower() in headers:
            continue  # the voxels of a volume, which are read with their header
        if kind in UNOPENED and not named:
            leave_out(left_out, kind, name)
        elif runs and picture and (picture["folder"], picture["name"]) in runs:
            leave_out(left_out, "own", name)
        elif size > (LARGEST_IMAGE if named else LARGEST_UNNAMED):
            leave_out(left_out, "large" if named else "other", name)
        else:
            names.append(name)
    return names


def is_hidden(name: str) -> bool:
    """Whether this is a file such as .DS_Store, or a folder that is no part of the set."""
    return hidden_kind(name) is not None


def hidden_kind(name: str) -> str | None:
    """The kind in which hidden files, and folders of thumbnails and deleted files, are counted."""
    if name.lower() in SYSTEM_FOLDERS or name == ".thumbnails":
        return "system"
    return "hidden" if name.startswith(".") or name.lower() in SYSTEM_FILES else None


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def place_of(status: os.stat_result) -> tuple[int, int]:
    """What is the same for two names of one file or folder."""
    return status.st_dev, status.st_ino
