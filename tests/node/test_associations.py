from __future__ import annotations

from dataclasses import dataclass

from node.associations import Associations


@dataclass(eq=False)
class Line:
    alive: bool = True

    def is_alive(self) -> bool:
        return self.alive


def test_a_series_is_open_while_an_association_that_sent_into_it_is() -> None:
    associations = Associations()
    first, second = Line(), Line()
    for line in (first, second):
        associations.opened(line, {"calling_ae": "PACS"})
    associations.sends(first, "1.1")
    associations.sends(second, "1.1")
    associations.sends(second, "1.2")
    assert associations.open_series() == {"1.1", "1.2"}
    associations.closed(second)
    assert associations.open_series() == {"1.1"}
    associations.closed(first)
    assert associations.open_series() == frozenset()


def test_the_end_is_told_once_with_what_was_done() -> None:
    associations = Associations()
    line = Line()
    associations.opened(line, {"calling_ae": "PACS"})
    associations.sends(line, "1.1")
    associations.counted(line, "stored", 100)
    associations.counted(line, "stored", 50)
    associations.counted(line, "refused", 0)
    tally = associations.closed(line)
    assert tally is not None
    assert tally.counts == {"stored": 2, "refused": 1}
    assert tally.size_bytes == 150
    assert tally.series == {"1.1"}
    assert tally.peer == {"calling_ae": "PACS"}
    assert associations.closed(line) is None


def test_an_association_that_died_without_a_word_holds_no_series_open() -> None:
    associations = Associations()
    dead, living = Line(), Line()
    for line in (dead, living):
        associations.opened(line, {})
        associations.sends(line, f"1.{id(line)}")
    dead.alive = False
    assert associations.open_series() == {f"1.{id(living)}"}
    assert [tally.series for tally in associations.lost()] == [{f"1.{id(dead)}"}]
    assert associations.lost() == []
    assert associations.closed(dead) is None
