"""Chromium without a window, and the pages of a few models. Run by ``pytest -m browser``; a missing browser fails."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from torch import Tensor, nn

from sgdph_fx import Report, prepare

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.norm(self.conv(x)))


class Net(nn.Module):
    """Sixteen blocks of three parts each are more than a page unfolds at first; the head is bare."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.Sequential(*(Block(4) for _ in range(16)))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


class Page:
    """A page in the browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def names(self, selector: str) -> list[str]:
        """Paths of the parts and modules of the graph that a selector finds."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].map((g) => itemAt(g.dataset.id))"
            ".map((item) => item.path || item.label)"
        )
        return list(self.run(script, selector))

    def hover(self, selector: str) -> None:
        """The real mouse moves to the middle of an element, wherever it is on the page."""
        self._move_to(selector).perform()

    def click(self, selector: str) -> None:
        """A real click there."""
        self._move_to(selector).click().perform()

    def _move_to(self, selector: str) -> webdriver.ActionChains:
        element = self.driver.find_element("css selector", selector)
        self.run("arguments[0].scrollIntoView({ block: 'center', inline: 'center' })", element)
        return webdriver.ActionChains(self.driver).move_to_element(element)

    def hover_item(self, path: str) -> None:
        """The mouse over a part or a folded module."""
        self.hover(self._item(path))

    def click_item(self, path: str) -> None:
        """A click on one."""
        self.click(self._item(path))

    def _item(self, path: str) -> str:
        name = f"m:{path}" if self.run("return modules.has(arguments[0])", path) else None
        identity = name or self.run("return partsAt.get(arguments[0])[0].id", path)
        return f'[data-id="{identity}"] > rect:last-of-type'

    def rows(self) -> list[str]:
        script = (
            "return [...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[0].innerText)"
        )
        return [text.replace("\u200b", "").split("\n")[0] for text in self.run(script)]

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector)).replace(
            "\u200b", ""
        )

    def problems(self) -> list[dict[str, Any]]:
        return list(self.driver.get_log("browser"))


Open = Callable[..., Page]


@pytest.fixture(scope="session")
def report() -> Report:
    return prepare(Net()).report


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    binaries = [shutil.which(name) for name in ("chromium", "chromedriver")]
    assert all(binaries), "these tests need Debian's packages chromium and chromium-driver"
    options = Options()
    options.binary_location = str(binaries[0])
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(binaries[1])))
    yield driver
    driver.quit()


@pytest.fixture
def open_page(driver: webdriver.Chrome, tmp_path: Path) -> Open:
    """Open a report's page at a size, in a theme, at a row, with or without its scripts."""

    def open_page(
        report: Report,
        width: int = 1366,
        height: int = 860,
        theme: str = "light",
        row: str = "",
        scripts: bool = True,
    ) -> Page:
        path = tmp_path / "report.html"
        path.write_text(report.to_html(), encoding="utf-8")
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        driver.get_log("browser")
        driver.get_log("performance")
        driver.get("about:blank")
        driver.get(f"{path.as_uri()}{row}")
        return Page(driver)

    return open_page


def requests(page: Page) -> list[str]:
    """Addresses of all that the page asked for."""
    messages = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    sent = (m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent")
    return [url for url in sent if not url.startswith("data:")]
