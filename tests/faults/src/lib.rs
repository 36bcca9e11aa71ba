//! The real daemon under real faults: everything is in `tests/`.
