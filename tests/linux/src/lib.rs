//! Small Linux programs, run natively and as unikernels: everything is in `tests/` and `programs/`.
