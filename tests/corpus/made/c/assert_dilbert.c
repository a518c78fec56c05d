#define NDEBUG_LEVEL 1

void assertive(int n);

int insert_assertion_count;

int busy(int n)  // case: P10-R5 violation -- names that hold the letters, no assertion among them
{
    insert_assertion_count = n;
    return insert_assertion_count;
}

int idle(int n)
{
    return busy(n) + 1;
}
