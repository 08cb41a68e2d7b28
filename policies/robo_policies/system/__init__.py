"""The machine: cores, memory, system libraries."""
