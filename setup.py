"""Builds and describes the package; every tool's settings are in tox.ini."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class BuildWithGuide(build_py):
    """Builds the package, and puts the usage guide into it: ``sqspipes guide`` shows it."""

    def run(self) -> None:
        """Copy what there is one source of."""
        super().run()
        if not self.editable_mode:
            self.copy_file(
                str(HERE / "docs" / "guide.rst"), str(Path(self.build_lib, "sqspipes", "guide.rst"))
            )


setup(
    name="sqspipes",
    version="1.1.0.dev0",
    description="Chains plain Python functions over AWS SQS FIFO queues, as a shell chains programs with |",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    author="the sqspipes developers",
    license="MIT",
    packages=find_packages(include=["sqspipes", "sqspipes.*"]),
    package_data={"sqspipes": ["py.typed", "brokers/redis/lua/*.lua"]},
    cmdclass={"build_py": BuildWithGuide},
    entry_points={
        "console_scripts": ["sqspipes = sqspipes.cli:main"],
        "pytest11": ["sqspipes = sqspipes.testing.plugin"],
    },
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=["boto3>=1.35.16", "click>=8.1", "rich>=13.0"],
    extras_require={"redis": ["redis>=5.0.1"]},
    keywords=["aws", "sqs", "fifo", "queue", "pipe", "pipeline", "worker", "sqlite", "redis", "valkey"],
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
