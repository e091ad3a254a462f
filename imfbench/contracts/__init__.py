"""What a plug-in must do, clause by clause: a contract for each kind of part.

In a test of one's own, which is all that ``imfbench new-method`` writes::

    load_file(Path(__file__).with_name("my_method.py"))

    @pytest.mark.parametrize("clause", clauses("method", "my-method"), ids=str)
    def test_contract(clause):
        clause()

``imfbench check --plugin FILE`` runs the same clauses and a small run, and says in words what is wrong.
"""

from imfbench.contracts.clauses import BrokenContract, Clause, clauses

__all__ = ["BrokenContract", "Clause", "clauses"]
