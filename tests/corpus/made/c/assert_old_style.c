extern int debug_assert();

int
checked(n, top)  /* case: P10-R5 clean */
    int n;
    int top;
{
    debug_assert(n > 0);
    debug_assert(top > n);
    return n;
}
