"""Real peers for tests: DCMTK, Orthanc; what is absent skips the test with the reason."""
