static int second_entry(int n) { return n * 2; }  // case: P10-R1 clean

static int climb(int n) { return n > 9 ? n : climb(n + 1); }  // case: P10-R1 violation

int third_entry(int n) { return climb(second_entry(n)); }  // case: P10-R1 clean
