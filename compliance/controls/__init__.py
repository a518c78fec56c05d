"""The operational controls, one a file: how each is tried on a disposable pool."""
