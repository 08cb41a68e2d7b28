"""ROS 2 nodes around robo_hw's safety core. Nothing here imports rclpy until a node is asked for."""
