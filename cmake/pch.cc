// Exists to own the precompiled header (see pensieve.cmake).
