//! The `synprobe` binary as a user starts it.
