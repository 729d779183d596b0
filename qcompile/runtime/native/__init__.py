"""Programs that run where qcompile is not installed: C sources, and Python that a package ships as it is."""
