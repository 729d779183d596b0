"""Mixed precision that is checked: assign, measure, repair, and report on data that the search did not see."""
