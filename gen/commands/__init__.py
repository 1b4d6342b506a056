"""What each verb of the command line does; heavy libraries are loaded by the verb that needs them."""
