int main(int argc, char **argv)  // case: P10-R9 clean
{
    return argc > 1 && argv[1][0] == 'x';  // case: P10-R9 clean
}

int run(int argc, char **argv)  // case: P10-R9 violation
{
    return argc + (argv != 0);
}
