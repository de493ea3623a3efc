"""Headless Chromium for tests of pages; whoever asks for it is skipped where there is none."""

import contextlib
import pathlib
import shutil
import tempfile
import time

import pytest

_OPTIONS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run
  --disable-background-networking --disable-component-update --disable-sync
  --window-size=1400,900"""
_PATIENCE = 30


@contextlib.contextmanager
def chromium(downloads):
  """A driven browser with a new profile, which saves downloads to a folder."""
  webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
  programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
  if None in programs:
    pytest.skip("chromium or chromedriver is not installed: apt-get install chromium-driver")
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for option in [*_OPTIONS.split(), f"--user-data-dir={profile}"]:
      options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(programs[1])
    try:
      driver = webdriver.Chrome(options=options, service=service)
      driver.set_page_load_timeout(_PATIENCE)
      driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
      )
      yield driver
      driver.quit()
    finally:
      service.stop()


def downloaded(path: pathlib.Path) -> pathlib.Path:
  """A file, once it is there."""
  wait(path.is_file)
  return path


def wait(condition):
  """Waits until something is true."""
  end = time.monotonic() + _PATIENCE
  while not condition():
    assert time.monotonic() < end, "the browser did not do it"
    time.sleep(0.02)
