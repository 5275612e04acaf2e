from kleval.cli.main import main

main()
