"""Which of the endpoints should answer: filters, scorers, pickers, all of them pure functions."""
