static int counter;

static int step(int n) { return n + 1; }  // case: P10-R1 clean

int second_entry(int n) { return step(n) + counter; }  // case: P10-R1 clean

static int flush(int n) { counter = n; return n > 4 ? -1 : 0; }

void second_flush(int n)
{
    flush(n);  // case: P10-R7 violation
}
