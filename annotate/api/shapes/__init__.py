"""The shapes that go in and out, a room for each kind of thing."""
