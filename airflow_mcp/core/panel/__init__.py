"""What the page in Airflow's UI and the command line show of a model: state, facts, words and charts."""
