"""What a simple classifier of the stored joints gets on the same clips: nobody should get less."""
