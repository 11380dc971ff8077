"""Where the picker's configuration comes from, and how it changes while the picker runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from pointsman.picker.config import ConfigError, PickerConfig, read_config
from pointsman.picker.endpoints.measures import Extraction
from pointsman.picker.settings import environment
from pointsman.picker.settings.options import Options

log = logging.getLogger(__name__)

CONFIG_INTERVAL_S = 0.5
"""Between two looks at the configuration file."""


class ConfigSource:
    """The configuration that the flags name, with what flags and environment add to it."""

    def __init__(self, options: Options, variables: environment.Environment) -> None:
        self._options = options
        self._variables = variables
        self._text = ""
        self.errors = 0
        """How often the file changed to something wrong."""

    def read(self) -> PickerConfig:
        """The configuration as it is now.

        Raises:
            ConfigError: it is wrong.
            OSError: the file cannot be read.
            ValueError: the environment is wrong.
        """
        path = self._options.config_file
        self._text = path.read_text() if path is not None else self._options.config_text
        for name in environment.WITHOUT_EFFECT:
            if self._variables.get(name):
                log.info("The environment variable %s changes nothing here", name)
        return self._config()

    async def follow(self, on_change: Callable[[PickerConfig], None]) -> None:
        """Take up the file as it changes, for ever; a wrong one leaves the last good one."""
        path = self._options.config_file
        while path is not None:
            await asyncio.sleep(CONFIG_INTERVAL_S)
            try:
                text = await asyncio.to_thread(path.read_text)
                if text == self._text:
                    continue
                self._text = text
                on_change(self._config())
                log.info("The configuration %s has changed and is in use", path)
            except (OSError, UnicodeDecodeError, ConfigError) as error:
                self.errors += 1
                log.error("The configuration %s stays as it was: %s", path, error)

    def _config(self) -> PickerConfig:
        if self._text:
            config = read_config(self._text)
            for note in config.notes:
                log.warning("The configuration's %s", note)
        else:
            config = PickerConfig(detector=environment.detector(self._variables))
        engine = self._options.engine_metrics
        if engine is None:
            return config
        known = config.extraction
        return replace(config, extraction=Extraction((engine, *known.engines), known.custom))
