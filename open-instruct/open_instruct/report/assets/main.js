
header(); curves(); configuration(); rollouts();
