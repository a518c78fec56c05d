int second_entry(int n);

static int step(int n) { return second_entry(n - 1); }  // case: P10-R1 clean

int first_entry(int n) { return n ? step(n) : 0; }  // case: P10-R1 clean

static void flush(int n) { (void)n; }

void first_flush(int n)
{
    flush(n);  // case: P10-R7 clean
}
