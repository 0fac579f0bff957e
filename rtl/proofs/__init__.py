"""Proofs about the hardware with SymbiYosys: ``python -m rtl.proofs``.

One module a unit, each with its ``PROOFS``. A proof holds for every input and, by k-induction, for every number of
cycles, of the instance it names; and each has mutants, the same unit with one thing wrong, that it refutes.

``ports`` says which proof covers which stream, queue and memory port of the design. ``descriptors`` has what proofs
assume of a program, which tests compare with programs. ``machine`` has the machines whose units are proved.
"""
